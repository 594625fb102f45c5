"""Types of options that several plugins of sound share."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Le

# A day. The bound refuses infinity and what is no number, too; the least is the encoder's own affair.
Seconds = Annotated[float, Le(86400)]
