"""The HTML page that shows a run: document.py puts it together from what the others draw."""
