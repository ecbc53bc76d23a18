"""The HTTP interface: scores, feedback, undone closings, the JSON models and their OpenAPI description."""
