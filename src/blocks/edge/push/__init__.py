"""Push: releases are sent ahead of demand, switched on all points of presence or on none, and served without an origin."""
