"""Old names of fields and addresses, refused by a sentence with the new one."""

FIELDS = {"palate.way": "palate.method", "palate.person": "palate.user", "person": "user"}
ADDRESSES = {"/v1/people": "/v1/users"}
