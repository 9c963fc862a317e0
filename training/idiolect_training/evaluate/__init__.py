"""What was learnt: accuracy, replies and their language, studies and reports."""
