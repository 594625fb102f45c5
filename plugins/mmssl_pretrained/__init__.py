"""What the plugins of pretrained models share; no plugin itself."""
