"""What stands between the network and the routes: connections and their limits, the key, and how the server closes."""
