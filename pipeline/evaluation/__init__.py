"""How good a trained model is: metrics, charts, and a comparison with published results."""
