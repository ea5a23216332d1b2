"""What stands before and after every change: a question with the exact number, then how far it is."""
