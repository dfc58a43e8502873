"""Training the bundled model on scenes and captions, and fine-tuning it with pixel labels."""
