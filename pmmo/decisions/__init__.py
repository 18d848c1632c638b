"""From probabilities to genres: a threshold per genre and a temperature, both fitted on dev."""
