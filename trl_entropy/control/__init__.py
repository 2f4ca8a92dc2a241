"""Control laws, the knobs they turn and the signals they read: numbers only."""
