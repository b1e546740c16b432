"""Where the images come from, which of them are used, and how they reach the model."""
