"""One front door: routes, limits, identity, composition, and safe change."""

from .consumer import Consumer as Consumer
from .context import Context as Context
from .context import context_of as context_of
from .gateway import Gateway as Gateway
from .problem import problem as problem
from .route import Route as Route
from .route import route as route
from .versions import Versions as Versions
