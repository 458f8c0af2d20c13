"""Judge pairs of answers, and measure how well a judge agrees with people."""
