"""Moderation without a network: categories, how texts are split, policies and reports."""
