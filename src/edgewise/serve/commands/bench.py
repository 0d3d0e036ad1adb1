"""`edgewise bench [NAME] …`: the catalog of benches is the command; without a name it is the first of them."""

from edgewise.serve.benches import BENCHES

command = BENCHES
