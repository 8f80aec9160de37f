"""Programs that write pages of docs/ from the code; each is run as `python -m scripts.NAME`."""
