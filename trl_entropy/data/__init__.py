"""The embedded problems and the policy that ships with the package."""
