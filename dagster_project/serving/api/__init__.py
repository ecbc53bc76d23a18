"""What the HTTP service answers and takes in as JSON: scores, feedback, undone closings, and their description."""
