"""DHT clients in the same network: puts, gets and cold starts."""
