"""Work on several machines or GPUs: who computes (Ray, or this process), and where files lie that all of them reach."""
