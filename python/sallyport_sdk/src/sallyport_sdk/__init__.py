"""Write plugins for Sallyport in Python."""
