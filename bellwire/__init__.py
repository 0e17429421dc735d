"""Bellwire: publish an event once; everyone who subscribed gets it, by email, SMS or webhook."""
