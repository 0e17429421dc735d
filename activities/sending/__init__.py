"""What all channels share: the send activities' loop, gates, inline sends, attempts in flight and test sends."""
