"""Video files as a pairing source and a modality."""
