"""How the tables of each kind become objects: ``make(name, table, bench)`` gives the node, or raises ``ConfigError``."""
