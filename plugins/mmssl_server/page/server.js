/**
 * What is asked of the server, and what is said when it does not answer.
 *
 * Addresses are relative, since a proxy may put any path before them.
 */

/** Says in one line why there is no answer, and what to do. */
export class Failure extends Error {
  constructor(message, status = 0) {
    super(message);
    this.isOfFilter = status === 422 && /\bfilter\b/.test(message);
    this.mayPass = status === 0 || status >= 500; // it may be gone at another try
  }
}

/** Tell what is served. */
export const health = () => ask("health");

/** Tell of one item. A key stands behind the question mark, where no proxy tidies it up. */
export const item = (modality, key) =>
  ask(`items/${encodeURIComponent(modality)}/?key=${encodeURIComponent(key)}`);

/** Search; the body is of `toBody`. */
export function search(body, signal) {
  const headers = typeof body === "string" ? { "Content-Type": "application/json" } : {};
  return ask("search", { method: "POST", headers, body, signal });
}

async function ask(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server can't be reached: see whether it is still running.");
  }
  let told;
  try {
    told = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const what = `The server, or a proxy before it, answered ${answer.status} without saying why: try again.`;
    throw new Failure(what, Math.max(500, answer.status));
  }
  if (!answer.ok) throw new Failure(told.error ?? `The server answered ${answer.status}.`, answer.status);
  return told;
}
