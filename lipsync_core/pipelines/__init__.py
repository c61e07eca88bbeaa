"""What a user asks for: dub, preview, score, measure. Paths may be given here."""
