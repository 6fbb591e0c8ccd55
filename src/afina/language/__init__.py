"""Texts, sentences and numbers in the languages of the readers: English, Spanish, Portuguese."""
