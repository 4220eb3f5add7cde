"""The vision-language model: manifest, preprocessing, selective encoder, decoder."""
