"""What the PyInstaller specs share: what a frozen folder holds, what is left out of it and why."""
