"""Which route a request takes: templates, a trie of segments, and the order in which candidates are asked."""

from .table import Found as Found
from .table import Table as Table
from .template import Template as Template
