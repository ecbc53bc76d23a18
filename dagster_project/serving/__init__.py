"""`heed serve`: scores over HTTP for other systems, and the board for triagers. It writes feedback and undone
closings, nothing else."""
