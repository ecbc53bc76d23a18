"""What heed keeps between runs: history, features, frames, models, scores, flags, watermarks."""
