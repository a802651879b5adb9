"""What else the same backbone can do: look into it, judge, divide, align and find pictures."""
