"""SMS to mainland China: providers that fill a registered template in place of sending a text."""
