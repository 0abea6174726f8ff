"""The pages of results: made from the JSON that measurements wrote, and the same every time."""
