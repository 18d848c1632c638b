"""The networks, the Pyro model and guide, the objectives and the systems of the paper."""
