"""A model as the judge of answers: what it is asked, what it said, and what that shows."""
