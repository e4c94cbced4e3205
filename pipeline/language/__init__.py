"""What the cloud knows of language: a neural language model over the tokenizer's pieces, and an intent classifier."""
