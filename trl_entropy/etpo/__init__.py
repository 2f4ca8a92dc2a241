"""ETPO: a policy and a critic over the vocabulary, with a soft Bellman target for every token."""
