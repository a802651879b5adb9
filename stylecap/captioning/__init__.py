"""Describe pictures: an LSTM decoder over the features of the shared, frozen backbone."""
