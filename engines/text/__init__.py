"""What the decoder is made of, apart from the network: prompt, sampling, kept prefixes, weighing of answers."""
