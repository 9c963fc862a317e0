"""What /openapi.json says: each route, every status it can answer, and the bodies that go with them."""
