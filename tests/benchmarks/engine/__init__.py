"""Speed of the neural engine, against the machine's own floor and, where a checkout is at hand, against upstream."""
