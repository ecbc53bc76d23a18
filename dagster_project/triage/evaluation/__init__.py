"""How good are forecasts? Metrics, contenders, evidence with intervals."""
