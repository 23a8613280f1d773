"""What the product is made of: locked packages, their licences, known weaknesses, and the bill of materials."""
