"""Which of several draws is best: whole clips drawn again, soundtracks of one picture."""
