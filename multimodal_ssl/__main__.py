"""python -m multimodal_ssl, for torchrun."""

from multimodal_ssl.cli import main

main()
