"""HTTP and CSV in, raw topics out: parse, pseudonymise, acknowledge."""
