"""Static files: dates, conditions, ranges, names, opening, caching, and what a request gets."""
