"""Facts: what a Japanese text states that can be compared, each in one spelling."""
